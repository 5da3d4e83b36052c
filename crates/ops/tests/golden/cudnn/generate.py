"""The names and numbers of cuDNN's graph interface from the header in its PyPI package: names.json.

python3 -m pip download --no-deps --dest build -r requirements.txt
python3 generate.py build/nvidia_cudnn_cu13-*.whl
"""
import argparse
import json
import pathlib
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
HEADER = "nvidia/cudnn/include/cudnn_graph_v9.h"
# The enumerations that a convolution needs.
WANTED = [
    "cudnnDataType_t",
    "cudnnConvolutionMode_t",
    "cudnnBackendAttributeName_t",
    "cudnnBackendAttributeType_t",
    "cudnnBackendDescriptorType_t",
    "cudnnBackendNumericalNote_t",
    "cudnnBackendHeurMode_t",
]


def enumerations(text):
    """Each enumeration of the header: its members with their numbers."""
    found = {}
    for part in text.split("typedef enum {")[1:]:
        body, _, rest = part.partition("}")
        members = {}
        for line in body.replace(",", "\n").splitlines():
            name, equals, number = line.partition("=")
            if equals and number.split():
                try:
                    members[name.split()[0]] = int(number.split()[0], 0)
                except ValueError:
                    # Some are named after others, or count; a convolution needs none of them.
                    continue
        found[rest.partition(";")[0].split()[0]] = members
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=pathlib.Path)
    with zipfile.ZipFile(parser.parse_args().wheel) as wheel:
        found = enumerations(wheel.read(HEADER).decode())
    package, version = (HERE / "requirements.txt").read_text().strip().split("==")
    names = {name: found[name] for name in WANTED}
    content = {"versions": {package: version}, "header": HEADER, "names": names}
    (HERE / "names.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
