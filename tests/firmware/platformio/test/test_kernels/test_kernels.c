#include "../../../target/kernels.c"
