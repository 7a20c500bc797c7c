"""What stands between the network and the services: the API, identity, limits, passwords, uploads, files."""
