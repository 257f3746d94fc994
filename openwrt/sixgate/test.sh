#!/bin/sh
# Run by the feed's CI in a container of the target: test.sh PACKAGE VERSION

sixgate --version | grep -F "$2"
