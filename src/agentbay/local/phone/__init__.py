"""An Android phone that is plugged into this machine, driven by adb."""
