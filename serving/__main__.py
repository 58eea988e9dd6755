"""`python -m serving`: the serving commands of `car`, without the others."""

from serving.cli import app

if __name__ == "__main__":
    app(prog_name="python -m serving")
