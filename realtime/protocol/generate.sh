#!/bin/sh
# Make the *_pb2.py and *_pb2.pyi from the schemas; needs requirements-dev.txt. PYTHON names the interpreter.
set -eu
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
for schema in client api unistream; do
    "$python" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. "$schema.proto"
    # The names of the messages are the SDKs' and stubs' too, and a pool takes a name once: without a pool of our own a
    # process could not import both this and, say, centrifuge-python.
    sed -i 's/_descriptor_pool\.Default()\.AddSerializedFile/_descriptor_pool.DescriptorPool().AddSerializedFile/' \
        "${schema}_pb2.py"
    grep -q '_descriptor_pool\.DescriptorPool()' "${schema}_pb2.py"
    # mypy --strict wants the parameters of a generic type.
    sed -i 's/_Mapping\]/_Mapping[str, object]]/g' "${schema}_pb2.pyi"
done
