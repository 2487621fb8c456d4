#!/bin/sh
# Make client_pb2.py and client_pb2.pyi from client.proto; needs requirements-dev.txt. PYTHON names the interpreter.
set -eu
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
"$python" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. client.proto
# The names of the messages are the SDKs' too, and a pool takes a name once: without a pool of our own a process
# could not import both this and, say, centrifuge-python.
sed -i 's/_descriptor_pool\.Default()\.AddSerializedFile/_descriptor_pool.DescriptorPool().AddSerializedFile/' client_pb2.py
grep -q '_descriptor_pool\.DescriptorPool()' client_pb2.py
# mypy --strict wants the parameters of a generic type.
sed -i 's/_Mapping\]/_Mapping[str, object]]/g' client_pb2.pyi
