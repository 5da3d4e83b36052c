"""An S3 server of moto that holds the files of a folder.

Usage: s3.py FOLDER. Uploads each file as `shards/NAME` into the bucket `data`, prints its port, and ends
when its standard input does. The packages are those of requirements.txt.
"""

import os
import sys

import boto3
from moto.server import ThreadedMotoServer

FOLDER = sys.argv[1]

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()
client = boto3.client(
    "s3",
    endpoint_url=f"http://127.0.0.1:{port}",
    region_name="us-east-1",
    aws_access_key_id="key",
    aws_secret_access_key="secret",
)
client.create_bucket(Bucket="data")
for name in sorted(os.listdir(FOLDER)):
    client.upload_file(os.path.join(FOLDER, name), "data", f"shards/{name}")
print(port, flush=True)
sys.stdin.read()
server.stop()
