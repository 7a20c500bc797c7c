"""Person search: `python app.py` serves, `python app.py --help` says what else it does. Also the Spaces entry."""

from app.cli import main

if __name__ == "__main__":
    main()
