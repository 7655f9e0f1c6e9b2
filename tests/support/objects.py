"""An object store on loopback: a real S3 server with one bucket."""

import contextlib
from collections.abc import Iterator

import s3fs
from moto.server import ThreadedMotoServer

KEY, SECRET, REGION = "user", "planted-secret", "eu-west-1"


class Store:
    """A server with a bucket.

    Attributes:
        variables: The environment of a process that uses it.
        files: A client.
    """

    def __init__(self, endpoint: str, bucket: str) -> None:
        self.variables = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.files = s3fs.S3FileSystem(
            key=KEY,
            secret=SECRET,
            endpoint_url=endpoint,
            client_kwargs={"region_name": REGION},
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        self.files.mkdir(bucket)


@contextlib.contextmanager
def object_store(bucket: str) -> Iterator[Store]:
    """Run a server with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        store = Store("http://{}:{}".format(*server.get_host_and_port()), bucket)
        try:
            yield store
        finally:
            store.files.rm(bucket, recursive=True)
            # The server's end waits for open connections.
            store.files.close_session(store.files.loop, store.files.s3)
    finally:
        server.stop()
