#include "place.h"

#define UNPLACED 0xFFFFFFFFu
enum { ORDERS = 3, ROUNDS = 12 };

static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* The order in which pieces are placed: largest first, longest lived first, or largest size times life first. */
static uint64_t rank(const ft_piece *p, uint32_t order)
{
    uint32_t life = p->end - p->begin + 1;
    return order == 0 ? p->size : order == 1 ? (uint64_t)life << 32 | p->size : (uint64_t)p->size * life;
}

/* Each piece at the lowest offset that is free during its life; returns the floats that all take together. */
static uint32_t place_in_order(ft_piece *pieces, uint32_t count, uint32_t order)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < count; i++)
        pieces[i].at = UNPLACED;
    for (uint32_t done = 0; done < count; done++) {
        ft_piece *next = 0;
        for (uint32_t i = 0; i < count; i++)
            if (pieces[i].at == UNPLACED
                && (!next || pieces[i].early > next->early
                    || (pieces[i].early == next->early && rank(&pieces[i], order) > rank(next, order))))
                next = &pieces[i];
        uint32_t at = 0;
        for (uint32_t i = 0; i < count; i++) {
            const ft_piece *p = &pieces[i];
            if (p->at != UNPLACED && p->begin <= next->end && next->begin <= p->end && p->at < at + next->size
                && at < p->at + p->size) {
                at = p->at + p->size;
                i = (uint32_t)-1; /* look at all of them again from the new offset */
            }
        }
        next->at = at;
        total = larger(total, at + next->size);
    }
    return total;
}

/* The most that live at one time: no placement takes less. */
static uint32_t least_floats(const ft_piece *pieces, uint32_t count)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < count; i++) { /* a new maximum comes with a new ft_piece */
        uint32_t live = 0, now = pieces[i].begin;
        for (uint32_t k = 0; k < count; k++)
            live += pieces[k].begin <= now && now <= pieces[k].end ? pieces[k].size : 0;
        most = larger(most, live);
    }
    return most;
}

/* Places, then again with the piece that reached highest put first, `rounds` times or until it takes no more than bound.
 * *best: the round that took least. */
static uint32_t place_in_rounds(ft_piece *pieces, uint32_t count, uint32_t order, uint32_t rounds, uint32_t bound,
                                uint32_t *best)
{
    uint32_t least = 0, total = 0;
    *best = 0;
    for (uint32_t i = 0; i < count; i++)
        pieces[i].early = 0;
    for (uint32_t round = 0; round <= rounds; round++) {
        total = place_in_order(pieces, count, order);
        if (round == 0 || total < least) {
            least = total;
            *best = round;
        }
        if (total == bound)
            break;
        ft_piece *top = pieces;
        for (uint32_t i = 1; i < count; i++)
            if (pieces[i].at + pieces[i].size > top->at + top->size)
                top = &pieces[i];
        top->early = round + 1;
    }
    return least;
}

uint32_t ft_place_pieces(ft_piece *pieces, uint32_t count)
{
    uint32_t bound = least_floats(pieces, count), order = 0, round, ignored;
    uint32_t least = place_in_rounds(pieces, count, 0, ROUNDS, bound, &round);
    if (least == bound)
        return least;
    for (uint32_t next = 1; next < ORDERS && least > bound; next++) {
        uint32_t in_round, total = place_in_rounds(pieces, count, next, ROUNDS, bound, &in_round);
        if (total < least) {
            least = total;
            order = next;
            round = in_round;
        }
    }
    return place_in_rounds(pieces, count, order, round, bound, &ignored);
}
