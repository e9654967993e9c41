"""The images of this repository, built from their Dockerfiles on machines without docker.

`python -m e2e.images` builds them all and prints the archives, which clusters and `docker load` take.
"""
