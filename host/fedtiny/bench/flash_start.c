/* Start-up of the images whose size is measured: of the board's port they take the start-up code alone, what else is there serves
 * measurements. */
#include "start.h"

int main(void);

void start_program(void)
{
    main();
    start_fault();
}

void start_fault(void)
{
    for (;;)
        ;
}
