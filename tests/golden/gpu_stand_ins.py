"""Builds empty shared libraries in place of the GPU libraries that the torch wheel links to.

usage: gpu_stand_ins.py TORCH_LIB_DIR OUT_DIR

The loader wants three things of each library: its file name, its symbol versions, and a definition of each
symbol that torch leaves undefined. All three are in torch's own ELF tables. Every function made here reports
an error, so torch finds no GPU; nothing of torch itself is changed.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

GPU_LIBRARY = re.compile(r"lib(cu|nv|nccl)")
GPU_SYMBOL = re.compile(r"_*(cu|CU|nv|nccl)")
NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
VERSIONED_FILE = re.compile(r"Version: \d+\s+File: (\S+)")
VERSION_NAME = re.compile(r"Name: (\S+)\s+Flags")

# cudaErrorInsufficientDriver: what the CUDA runtime itself answers on a machine without a GPU.
NO_GPU = 35


class Tables:
    """What all of torch's libraries ask for and define, read from their ELF tables."""

    def __init__(self, folder):
        self.needed = set()
        self.versions = {}  # symbol version -> library that has to define it
        self.versioned = set()  # (symbol, version) left undefined
        self.plain = set()  # symbols left undefined, without a version
        self.defined = set()
        libraries = sorted(folder.glob("*.so*"))
        for library in libraries:
            self.read(library)
        bundled = {library.name for library in libraries}
        self.needed = sorted(n for n in self.needed - bundled if GPU_LIBRARY.match(n))
        self.plain = sorted(s for s in self.plain - self.defined if GPU_SYMBOL.match(s))

    def read(self, library):
        command = ["readelf", "--wide", "--dynamic", "--version-info", "--dyn-syms", str(library)]
        asked_of = None
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
            if match := NEEDED.search(line):
                self.needed.add(match[1])
            elif match := VERSIONED_FILE.search(line):
                asked_of = match[1]
            elif (match := VERSION_NAME.search(line)) and asked_of:
                self.versions[match[1]] = asked_of
            else:
                self.read_symbol(line.split())

    def read_symbol(self, columns):
        """A row of the symbol table: number, value, size, type, binding, visibility, section, name@version."""
        if len(columns) < 8 or not columns[0].endswith(":"):
            return
        binding, section = columns[4], columns[6]
        symbol, _, version = columns[7].replace("@@", "@").partition("@")
        if section != "UND":
            self.defined.add(symbol)
        elif binding == "GLOBAL" and version:
            self.versioned.add((symbol, version))
        elif binding == "GLOBAL":
            self.plain.add(symbol)


def result_of(symbol):
    """C expression that a stand-in function returns."""
    if symbol == "__cudaRegisterFatBinary":
        # Torch's static initializers hand this pointer on; it must not be null.
        return "(long)handle"
    if symbol.startswith("__cudaRegister") or symbol.startswith("__cudaUnregister"):
        return "0"
    return str(NO_GPU)


def build(library, by_version, out):
    """One shared library; `by_version` maps a version name ("" for none) to its symbols."""
    symbols = sorted({symbol for group in by_version.values() for symbol in group})
    source = ["static long handle[16];"] + [f"long {s}(void) {{ return {result_of(s)}; }}" for s in symbols]
    nodes = [
        f"{version} {{ global: {' '.join(f'{s};' for s in sorted(group))} }};"
        for version, group in sorted(by_version.items())
        if version
    ]
    with tempfile.TemporaryDirectory() as scratch:
        c_file, script = pathlib.Path(scratch, "stand_in.c"), pathlib.Path(scratch, "versions.map")
        c_file.write_text("\n".join(source))
        script.write_text("\n".join(nodes))
        command = ["gcc", "-shared", "-fPIC", "-w", str(c_file), "-o", str(out / library), f"-Wl,-soname,{library}"]
        subprocess.run(command + ([f"-Wl,--version-script={script}"] if nodes else []), check=True)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[2])
    tables, out = Tables(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    contents = {library: {} for library in tables.needed}
    for version, library in tables.versions.items():
        if library in contents:
            contents[library][version] = {s for s, v in tables.versioned if v == version}
    # A symbol without a version may be defined by any library; the first one takes them all.
    if tables.needed:
        contents[tables.needed[0]][""] = set(tables.plain)
    for library, by_version in contents.items():
        build(library, by_version, out)
    print(f"{len(contents)} stand-ins in {out}")


if __name__ == "__main__":
    main()
