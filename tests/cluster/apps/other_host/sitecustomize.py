"""This process is on a host of another name."""

import os
import socket

socket.gethostname = lambda: os.environ["HOST_NAME"]
