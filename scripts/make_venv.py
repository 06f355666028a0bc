"""Makes a virtual environment and installs chatpool with some extras into it; says what is missing otherwise.

    python3 scripts/make_venv.py FOLDER [EXTRA,EXTRA] [--at-least 3.10] [--lowest] [--without PACKAGE,PACKAGE]
    python3 scripts/make_venv.py FOLDER --only FILE [--at-least 3.10]

The first interpreter that will do is taken: the one that runs this, then the newer ones on PATH.
With ``--lowest`` the lowest declared versions of the dependencies are installed.
With ``--without`` some packages of the extras are left out: those that this interpreter cannot have.
With ``--only`` a file of requirements is installed, and no chatpool: for a program that the tests talk to.

This file runs on any Python 3, however old, to be able to say that it is too old.
"""

import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NEWEST = 20
PROBE = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"


def main():
    """Make the environment; the exit code is 1 if that is not possible."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("extras", nargs="?")
    parser.add_argument("--only", metavar="FILE")
    parser.add_argument("--at-least", default="3.9", metavar="VERSION")
    parser.add_argument("--lowest", action="store_true")
    parser.add_argument("--without", metavar="PACKAGES")
    options = parser.parse_args()
    python = choose_python(version_of(options.at_least))
    shutil.rmtree(options.folder, ignore_errors=True)
    run([python, "-m", "venv", options.folder], "the virtual environment could not be made in " + options.folder)
    install(options)


def choose_python(at_least):
    """The first interpreter that is new enough and can make virtual environments."""
    missing = []
    for candidate in candidates():
        found, problem = probe(candidate)
        if problem:
            missing.append(problem)
        elif found < at_least:
            missing.append("%s is Python %d.%d" % ((candidate,) + found))
        else:
            if candidate != sys.executable:
                print("Using %s (Python %d.%d)." % ((candidate,) + found))
            return candidate
    return give_up(
        "Python %d.%d or newer is needed, with its venv and ensurepip modules, and was not found:\n  " % at_least
        + "\n  ".join(missing)
        + "\nInstall one (on Debian and Ubuntu: apt install python3 python3-venv),"
        + " or name one: make ... PYTHON=/path/to/python3"
    )


def candidates():
    """The running interpreter, then what PATH has under a versioned name, newest first."""
    named = [shutil.which("python3.%d" % minor) for minor in range(NEWEST, 8, -1)]
    return [sys.executable] + [path for path in named if path]


def probe(python):
    """Its version, or what is wrong with it."""
    try:
        asked = subprocess.Popen(
            [python, "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True
        )
        printed, complaint = asked.communicate()
    except OSError as error:
        return None, "%s: %s" % (python, error)
    if asked.returncode == 0:
        return version_of(printed), None
    lines = complaint.strip().split("\n")
    module = re.search(r"No module named '?(\w+)", lines[-1])
    return None, "%s %s" % (python, "lacks the module " + module.group(1) if module else "does not run: " + lines[0])


def version_of(text):
    """The pair of numbers that '3.10' stands for."""
    major, minor = text.strip().split(".")[:2]
    return int(major), int(minor)


def install(options):
    """Install this source tree, editable, with its extras."""
    python = os.path.join(options.folder, "Scripts" if os.name == "nt" else "bin", "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    if options.lowest:
        constraints = os.path.join(options.folder, "lowest.txt")
        with open(constraints, "w") as file:
            file.write("\n".join(lowest_versions()) + "\n")
        command += ["--constraint", constraints]
    what = "chatpool[%s]" % options.extras if options.extras else "chatpool"
    if options.only:
        what = options.only
        # Much of what such a program brings is never imported.
        command += ["--no-compile", "--requirement", options.only]
    elif options.without:
        what += " without " + options.without
        command += ["--editable", ROOT] + requirements_of(options.extras.split(","), options.without.split(","))
    else:
        command += ["--editable", what.replace("chatpool", ROOT, 1)]
    print("Installing %s into %s ..." % (what, options.folder))
    sys.stdout.flush()
    run(
        command,
        "pip could not install %s with all that it needs; if there is no network, tell pip where packages are"
        " (PIP_INDEX_URL or PIP_FIND_LINKS)" % what,
    )


def lowest_versions():
    """The declared lower bounds as exact versions."""
    return re.sub(r">=([\d.]+)\S*", r"==\1", declared("options", "install_requires")).split()


def requirements_of(extras, without):
    """The requirements of extras, but for some packages."""
    lines = [line.strip() for extra in extras for line in declared("options.extras_require", extra).split("\n")]
    return [line for line in lines if line and re.split(r"[\[<>=; ]", line)[0] not in without]


def declared(section, name):
    """An entry of setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(os.path.join(ROOT, "setup.cfg"))
    return setup[section][name]


def run(command, failure):
    """Run a command whose failure ends everything."""
    if subprocess.call(command) != 0:
        give_up(failure)


def give_up(message):
    """Say what is missing, and end."""
    sys.stderr.write("\n" + message + "\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
