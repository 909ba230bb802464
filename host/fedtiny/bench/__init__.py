"""`fedtiny bench kernels`: instructions, modelled cycles, flash, RAM and host time, beside what others take."""
