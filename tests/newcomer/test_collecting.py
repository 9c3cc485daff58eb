"""How commands are found on a page."""

import pytest

from .pages import all_commands, blocks_of, commands_of, looks_typed, page_names

PAGE = """
Text with `make run` in it.

```shell
make run     # draws photos

python -m training.train --a=1 \\
  --b='two words' -- --c
for split in train validation; do
  echo $split
done
# only said
cat <<EOF
one
EOF
kubectl run look --overrides='{"a":
  "b"}'
```

    python -m indented

```python
x = 1

y = 2
```

1. In a list:
   ```shell
   make test
   ```
```
made 3 files
```
"""


def test_commands_are_found_with_their_lines():
    blocks = list(blocks_of("p.md", PAGE))
    found = [c for b in blocks if b.language in ("shell", "python") for c in commands_of(b)]
    assert [(command.line, command.plain) for command in found] == [
        (5, "make run"),
        (7, "python -m training.train --a=1 --b=two words -- --c"),
        (9, "for split in train validation; do echo $split done"),
        (13, "cat <<EOF one EOF"),
        (16, 'kubectl run look --overrides={"a": "b"}'),
        (23, "x = 1 y = 2"),
        (30, "make test"),
    ]
    lines = PAGE.splitlines()
    assert all(command.text.startswith(lines[command.line - 1].strip()) for command in found)


def test_a_command_that_is_not_marked_is_noticed():
    blocks = list(blocks_of("p.md", PAGE))
    unmarked = [block for block in blocks if not block.language]
    assert [(block.text, looks_typed(block)) for block in unmarked] == [
        ("python -m indented\n", True),
        ("made 3 files\n", False),
    ]


def test_a_command_that_does_not_end_is_no_command():
    (block,) = blocks_of("p.md", "```shell\necho 'one\n```\n")
    with pytest.raises(ValueError, match=r"p\.md:2"):
        list(commands_of(block))


def test_the_pages_are_found():
    pages = page_names()
    assert {"README.md", "docs/training.md", "infra/dataflow/README.md"} <= set(pages)
    commands = all_commands()
    assert len(commands) > 100
    assert len({(command.page, command.line) for command in commands}) == len(commands)
