#include "fedtiny_capture.h"

void ft_window_start(ft_window *window, float *readings, uint32_t channels, uint32_t length, uint32_t hop)
{
    *window = (ft_window){.readings = readings, .channels = channels, .length = length, .hop = hop};
}

bool ft_window_push(ft_window *window, const float *reading)
{
    for (uint32_t c = 0; c < window->channels; c++)
        window->readings[window->at * window->channels + c] = reading[c];
    window->at = (window->at + 1) % window->length;
    window->fresh++;
    if (window->fresh < (window->filled ? window->hop : window->length))
        return false;
    window->filled = true;
    window->fresh = 0;
    return true;
}

void ft_window_read(const ft_window *window, float *x)
{
    for (uint32_t c = 0; c < window->channels; c++)
        for (uint32_t i = 0; i < window->length; i++)
            *x++ = window->readings[(window->at + i) % window->length * window->channels + c];
}
