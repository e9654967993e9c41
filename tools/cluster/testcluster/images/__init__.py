"""The images of this repository, built from their Dockerfiles on machines without Docker.

`testcluster images` builds all of them and prints the paths of the archives, for clusters and `docker load`.
"""
