"""A build backend that refuses: there is no package to install yet, and an installation of nothing would mislead."""

MESSAGE = (
    "error: there is no installable package yet: clone the repository, run `make setup` "
    "(or pip install -r requirements.txt) and start the scripts from its folder"
)


def _refuse(*_: object, **__: object) -> str:
    raise SystemExit(MESSAGE)


build_wheel = build_sdist = build_editable = prepare_metadata_for_build_wheel = _refuse
prepare_metadata_for_build_editable = get_requires_for_build_wheel = get_requires_for_build_sdist = _refuse
get_requires_for_build_editable = _refuse
