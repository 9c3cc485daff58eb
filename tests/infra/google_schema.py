"""What Terraform's provider for Google takes and gives, read from its published bindings.

The provider itself is in Terraform's own registry only. Its schema is in every registry, too: the
package `cdktf-cdktf-provider-google` was generated from it, and names in each resource's
`index.js` each argument with its type, and in `index.d.ts` those that are required.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re
import tarfile
from collections.abc import Iterator

PACKAGE = "cdktf_cdktf_provider_google"

_ENTRY = re.compile(
    r"^ +(?P<name>\w+): \{\n"
    r" +value: (?P<value>.*),\n"
    r" +isBlock: (?P<is_block>true|false),\n"
    r' +type: "(?P<kind>\w+)",\n'
    r' +storageClassType: "(?P<stored_as>\w+)",\n',
    re.MULTILINE,
)
_CLASS = re.compile(
    r"^class (\w+) extends cdktf\.Terraform(?:Resource|DataSource|Provider) \{$.*?^\}",
    re.MULTILINE | re.DOTALL,
)
_BLOCK = re.compile(r"^function (\w+)ToHclTerraform\(.*?^\}", re.MULTILINE | re.DOTALL)
_INTERFACE = re.compile(r"^export interface (\w+) .*?^\}", re.MULTILINE | re.DOTALL)
_REQUIRED = re.compile(r"^ +readonly (\w+): ", re.MULTILINE)
_COMPUTED = re.compile(r"this\.get(String|Number|Boolean)Attribute\('(\w+)'\)")

_ELEMENTS = {"string": "string", "number": "number", "boolean": "bool"}
_PRIMITIVES = {**_ELEMENTS, "any": "dynamic"}


@dataclasses.dataclass(frozen=True)
class Attribute:
    """An argument or a result; `type` is what Terraform writes into its JSON."""

    name: str
    type: str
    required: bool = False
    optional: bool = False
    computed: bool = False


@dataclasses.dataclass(frozen=True)
class Block:
    """What stands between two braces."""

    attributes: tuple[Attribute, ...]
    blocks: tuple[Nested, ...]


@dataclasses.dataclass(frozen=True)
class Nested:
    """A block in a block; `kind` is list, set or struct."""

    name: str
    kind: str
    required: bool
    single: bool
    block: Block


class Bindings:
    """The schema, resource by resource: reading all 1,400 would take long."""

    def __init__(self, archive: pathlib.Path):
        with tarfile.open(archive) as tar:
            self._files = {
                member.name: tar.extractfile(member).read().decode()
                for member in tar
                if re.fullmatch(r"package/lib/[a-z0-9-]+/index\.(js|d\.ts)", member.name)
            }

    def resource(self, name: str) -> Block:
        return self._read(name.removeprefix("google_").replace("_", "-"))

    def data_source(self, name: str) -> Block:
        return self._read("data-" + name.replace("_", "-"))

    def provider(self) -> Block:
        return self._read("provider")

    @functools.cache  # noqa: B019 - there is one of these objects in a session of tests
    def _read(self, folder: str) -> Block:
        try:
            code = self._files[f"package/lib/{folder}/index.js"]
            types = self._files[f"package/lib/{folder}/index.d.ts"]
        except KeyError:
            raise LookupError(f"the provider has no {folder!r}") from None
        code = re.sub(r"^//# sourceMapping.*", "", code, flags=re.MULTILINE)
        required = {m[1]: set(_REQUIRED.findall(m[0])) for m in _INTERFACE.finditer(types)}
        functions = {_capital(m[1]): m[0] for m in _BLOCK.finditer(code)}
        whole = _CLASS.search(code)
        hcl = whole[0][whole[0].index("synthesizeHclAttributes()") :]
        block = _block(hcl, required[whole[1] + "Config"], functions, required)
        return dataclasses.replace(
            block, attributes=tuple(_with_computed(block.attributes, whole[0]))
        )


def find_archive(site_packages: pathlib.Path) -> pathlib.Path | None:
    """The archive that has the bindings' sources, if the package is installed there."""
    return next(iter(site_packages.glob(f"{PACKAGE}/_jsii/*.tgz")), None)


def _block(
    code: str, names: set[str], functions: dict[str, str], required: dict[str, set[str]]
) -> Block:
    attributes, blocks = [], []
    for entry in _ENTRY.finditer(code):
        camel = re.findall(r"(?:this\._|struct\.)(\w+)", entry["value"])[-1]
        needed = camel in names
        if entry["is_block"] == "false":
            kind = _type(entry["kind"], entry["stored_as"])
            attributes.append(Attribute(entry["name"], kind, needed, not needed))
            continue
        inner = _capital(re.search(r"(\w+)ToHclTerraform\b", entry["value"])[1])
        blocks.append(
            Nested(
                entry["name"],
                entry["kind"],
                needed,
                "listMapper" not in entry["value"],
                _block(functions[inner], required[inner], functions, required),
            )
        )
    return Block(tuple(attributes), tuple(blocks))


def _with_computed(attributes: tuple[Attribute, ...], code: str) -> Iterator[Attribute]:
    """Arguments, then what only the cloud knows, like an account's address."""
    taken = {attribute.name for attribute in attributes}
    for attribute in attributes:
        yield dataclasses.replace(attribute, computed=True) if attribute.name == "id" else attribute
    results = {name: kind.lower() for kind, name in _COMPUTED.findall(code)}
    for name, kind in results.items():
        if name not in taken:
            yield Attribute(name, json.dumps(_PRIMITIVES[kind]), computed=True)


def _type(kind: str, stored_as: str) -> str:
    if kind == "simple":
        return json.dumps(_PRIMITIVES[stored_as])
    element = _ELEMENTS[re.match(r"string|number|boolean", stored_as)[0]]
    return json.dumps([kind, element])


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]
