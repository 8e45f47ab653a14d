"""nbsentinel: the runtime sentinel for SageMaker Studio and JupyterLab.

The package is the agent and its command line. What a program may rely on is the command line, the files it writes and
the socket it answers on (docs/reference); Python modules are internal and may move between releases.
"""

__version__ = "0.1.0"
