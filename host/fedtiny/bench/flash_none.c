/* The core alone: what flash_wire.c adds is the difference. */
void (*const flash_more)(void) = 0;
