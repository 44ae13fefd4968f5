"""The code that a release folder carries, so that `transformers` loads it without this project.

Made from the originals by the step that makes the installed package, `utils.build.renaming`: the modules that the model
needs, each a file of its own beside `modeling_moemae.py`, since transformers fetches files of one folder only.
"""

from pathlib import Path
from typing import Any

from utils.build.renaming import FRONT, imported_modules, project_modules, renamed
from utils.project_files import PROJECT

PACKAGE = f"{FRONT}." if (PROJECT / "__init__.py").is_file() else ""
"""What names of modules begin with in these files: nothing in the repository, the package where it is installed."""
MAIN = "release.auto_model"
MAIN_FILE = f"modeling_{FRONT}"


def write_model_code(folder: Path) -> dict[str, Any]:
    """Write the modules; returns what `config.json` says of them."""
    modules = {PACKAGE + name: path for name, path in project_modules(PROJECT).items()}
    needed, waiting = {}, [PACKAGE + MAIN]
    while waiting:
        module = waiting.pop()
        if module not in needed:
            needed[module] = modules[module].read_text(encoding="utf-8")
            waiting += imported_modules(needed[module], modules)
    names = {name: f".{FRONT}_{name.removeprefix(PACKAGE).replace('.', '_')}" for name in needed}
    names[PACKAGE + MAIN] = f".{MAIN_FILE}"
    for name, code in needed.items():
        path = folder / f"{names[name][1:]}.py"
        path.write_text(renamed(code, names, str(modules[name])), encoding="utf-8")
    auto = {"AutoConfig": f"{MAIN_FILE}.MoEMAEConfig", "AutoModel": f"{MAIN_FILE}.MoEMAEModel"}
    return {"architectures": ["MoEMAEModel"], "auto_map": auto, "dtype": "float32"}
