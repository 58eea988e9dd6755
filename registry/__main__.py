"""`python -m registry`: a door to the commands of `car registry`."""

from orchestration.registry_cli import app

if __name__ == "__main__":
    app(prog_name="python -m registry")
