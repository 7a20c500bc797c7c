"""The data card of an export: counts and meanings only, nothing that users typed."""

from __future__ import annotations

from collections.abc import Sequence

from store.export.snapshot import COLUMNS, Counts

CARD_NAME = "README.md"

_USE = {
    "parquet": 'marks = load_dataset("path/to/this/folder")\nmarks["train"][0]["image"], marks["train"][0]["caption"]',
    "imagefolder": 'marks = load_dataset("path/to/this/folder")\nmarks["train"][0]["image"], '
    'marks["train"][0]["caption"]',
    "jsonl": 'marks = load_dataset("json", data_files="marks.jsonl", split="train")',
}
_LAYOUT = {
    "parquet": "Rows of one picture are together, in the order of picture ids: shuffle before training.",
    "imagefolder": "Each split has its pictures and a `metadata.parquet`, one row for each mark.",
    "jsonl": "Marks without pictures; `python app.py import-marks marks.jsonl` imports them again.",
    "cuhk-pedes": "Pictures that were hit, in the layout of CUHK-PEDES: `imgs/` and `reid_raw.json` (rows: split, "
    "captions, file_path, processed_tokens, id). Captions that share hits are one identity; misses are left out. "
    "Loaders of IRRA and UP-Person look for `CUHK-PEDES` in their `--root_dir`: give this folder that name.",
}


def card(format: str, counts: Counts, splits: Sequence[tuple[str, str]]) -> str:
    """Markdown with the YAML front matter that the Hugging Face Hub reads."""
    return "\n".join([_front(counts, splits), _body(format, counts), *_columns(format), _NOTES])


def _front(counts: Counts, splits: Sequence[tuple[str, str]]) -> str:
    files = "\n".join(f"  - split: {split}\n    path: {pattern}" for split, pattern in splits)
    configs = f"configs:\n- config_name: default\n  data_files:\n{files}\n" if splits else ""
    return f"""---
pretty_name: Person search marks
license: unknown # choose one before sharing
language:
- en
task_categories:
- image-to-text
- text-retrieval
tags:
- text-based-person-search
- relevance-feedback
size_categories:
- {_size_category(counts.rows)}
{configs}---
"""


def _body(format: str, counts: Counts) -> str:
    verdicts = "\n".join(f"| `{verdict}` | {number} |" for verdict, number in counts.verdicts.items())
    splits = "\n".join(f"| {split} | {number} |" for split, number in counts.splits.items())
    skipped = f"\n{counts.skipped} marks are left out: {_why_skipped(format)}.\n" if counts.skipped else ""
    use = f"\n```python\nfrom datasets import load_dataset\n\n{_USE[format]}\n```\n" if format in _USE else ""
    return f"""# Person search marks

Marks that users of UP-Person Search made on results of their searches: whether a picture shows the person
they had described. One mark is the verdict that holds for one user, caption and picture.

{counts.rows} marks on {counts.images} pictures for {counts.captions} captions by {counts.annotators} annotators.
Model versions that ranked: {", ".join(f"`{version}`" for version in counts.versions)}.
{skipped}
| verdict | marks |
| --- | --- |
{verdicts}

| split | marks |
| --- | --- |
{splits}

Splits go by person: what is tied by a hit or a known identity is in one split. A picture may come back in another
split as a miss.

{_LAYOUT[format]}
{use}"""


def _columns(format: str) -> list[str]:
    if format == "cuhk-pedes":
        return []
    rows = "\n".join(f"| `{name}` | {kind} | {text} |" for name, kind, text in COLUMNS)
    image = "| `image` | Image | the picture |\n" if format != "jsonl" else ""
    return [f"| column | type | meaning |\n| --- | --- | --- |\n{image}{rows}\n"]


_NOTES = """## How the marks were made

People searched in their own words, saw ranked pictures, and said of some whether they fit. Ranks, scores and versions
are those of the search a mark was made on. What a search did not show has no mark: an unmarked picture is unknown, not
a miss.

## Before sharing

The pictures may show people, and captions are as typed: both are personal and may be sensitive data. Have the right to
pass them on, choose a licence, and name it above. Users are pseudonyms; the holder of the database can trace them.
"""


def _why_skipped(format: str) -> str:
    return "they are no hits of a plain description" if format == "cuhk-pedes" else "their pictures are gone"


def _size_category(rows: int) -> str:
    limits = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for limit, name in limits if rows < limit), "1M<n<10M")
