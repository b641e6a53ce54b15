#!/bin/sh
sed -i -e 's/sum - number/sum + number/' -e 's/\$#)$/$#))/' average.sh
chmod +x average.sh
