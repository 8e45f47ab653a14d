# What IPython finds as PYTHONSTARTUP in a kernel that `nbsentinel guard` started (nbsentinel_guard/kernels.py): lets it
# report, then runs the PYTHONSTARTUP that was there before. It runs in the user's namespace and leaves nothing there:
# no docstring, because that would be a name.
# ruff: noqa: D100
# mypy: ignore-errors
def _nbsentinel():
    import importlib.util
    import os

    names, module = globals(), None
    del names["_nbsentinel"]
    run_dir, before, startup = os.environ.pop("NBSENTINEL_STARTUP", "").partition("\n")
    path = os.environ.pop("PYTHONSTARTUP", "")
    if before:
        os.environ["PYTHONSTARTUP"] = startup
    try:
        beside = os.path.join(os.path.dirname(os.path.abspath(path)), "startup.py")
        spec = importlib.util.spec_from_file_location("nbsentinel_kernel_startup", beside)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if run_dir:
            module.launched(run_dir)
    except Exception:  # noqa: BLE001 - whatever is wrong with us, the user's own file is run
        pass
    run = getattr(module, "run_users_file", None)
    if startup and run is not None:
        run(startup, names)
    elif startup:
        with open(startup, "rb") as file:
            exec(compile(file.read(), startup, "exec"), names)  # noqa: S102 - it is the user's own start-up file


_nbsentinel()
