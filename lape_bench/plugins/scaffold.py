"""Write a package for a new system from a template.

The template in `templates/system` is a working package that is linted. Only its name is replaced.
"""

import importlib.util
import keyword
import re
import sys
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.core.paths import staged_folder
from lape_bench.plugins.registry import SYSTEMS

TEMPLATE = Path(__file__).with_name("templates") / "system"
NAME, MODULE = "my-encoder", "my_encoder"  # of the template
KINDS = (".toml", ".md", ".py")  # other files are caches of tools
LONGEST_NAME = 40  # longer names would make lines too long
IS_NAME = re.compile("[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def new_system(name: str, out: Path) -> Path:
    """Write a package with a system, its settings, its test and its entry point.

    Args:
        name: name of the system and of the package; the module has underscores instead of hyphens.
        out: the folder to write it to.

    Returns:
        The package's folder.

    Raises:
        UserError: the name is not valid for a package or is taken, or the folder exists.
    """
    module = name.replace("-", "_")
    _refuse_name(name, module)
    folder = out / name
    if folder.exists() or folder.is_symlink():
        raise UserError(
            f"{folder} already exists",
            next_step="choose another name, or another place with --out",
        )
    with staged_folder(out) as staging:
        for relative, text in template().items():
            path = staging.path / relative.replace(MODULE, module)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_renamed(text, {NAME: name, MODULE: module}), encoding="utf-8")
        staging.name = name
    return folder


def _renamed(text: str, names: dict[str, str]) -> str:
    return re.sub("|".join(names), lambda match: names[match[0]], text)


def template() -> dict[str, str]:
    """Return the files of the template by their path in it."""
    paths = (path for kind in KINDS for path in sorted(TEMPLATE.rglob(f"*{kind}")))
    return {
        path.relative_to(TEMPLATE).as_posix(): path.read_text(encoding="utf-8") for path in paths
    }


def _refuse_name(name: str, module: str) -> None:
    if not IS_NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UserError(
            f"'{name}' is not a valid name for a package",
            allowed=f"lowercase letters, digits and hyphens, a letter first, at most {LONGEST_NAME} characters, such as my-encoder",
        )
    alike = [
        known for known in SYSTEMS.names() if known.replace("_", "-") == name.replace("_", "-")
    ]
    if alike:
        raise UserError(
            f"there is already a system '{alike[0]}'",
            next_step="choose another name; 'bench systems' lists them",
        )
    taken = "keyword" if keyword.iskeyword(module) else "module"
    if taken == "keyword" or module in sys.stdlib_module_names or _is_installed(module):
        raise UserError(
            f"'{name}' cannot be the package's name: Python already has a {taken} '{module}'",
            next_step="choose another name",
        )


def _is_installed(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return (
        spec is not None and spec.origin is not None
    )  # a folder without __init__.py is not a package here
