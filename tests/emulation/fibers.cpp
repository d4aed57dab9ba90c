/* fibers.cpp - the threads of a block: see emulated.h. */
#include "tests/emulation/emulated.h"

#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <vector>

#include "runtime/base/clock.h"

namespace emulated
{
thread_local uint3 thread_index, block_index;
thread_local dim3 grid_size, block_size;

namespace
{
enum { STACK = 64 << 10, WARP = 32 };

/* Who waits for whom: a block, or a warp of it. */
struct meeting {
    unsigned live, arrived, round;
};

struct fiber {
    ucontext_t context;
    std::vector<char> stack;
    uint3 index;
    bool done;
};

struct block_state {
    ucontext_t scheduler;
    std::vector<fiber> fibers;
    meeting all;
    std::vector<meeting> warps;
    std::vector<uint64_t> words;
    unsigned running;
    const std::function<void()> *thread;
};
thread_local block_state state;

void yield(void)
{
    fiber &f = state.fibers[state.running];
    swapcontext(&f.context, &state.scheduler);
}

void release_when_full(meeting &m)
{
    if (m.arrived < m.live) return;
    m.arrived = 0;
    m.round++;
}

void meet(meeting &m)
{
    unsigned round = m.round;
    m.arrived++;
    release_when_full(m);
    while (m.round == round) yield();
}

void fiber_main(void)
{
    (*state.thread)();
    state.fibers[state.running].done = true;
    meeting &warp = state.warps[state.running / WARP];
    state.all.live--;
    warp.live--;
    if (state.all.live) release_when_full(state.all);
    if (warp.live) release_when_full(warp);
    yield();
}

void run_fibers(unsigned n)
{
    if (state.fibers.size() < n) state.fibers.resize(n);
    state.words.resize(n);
    state.all = {n, 0, 0};
    state.warps.assign((n + WARP - 1) / WARP, {0, 0, 0});
    for (unsigned i = 0; i < n; i++) {
        fiber &f = state.fibers[i];
        f.stack.resize(STACK);
        f.done = false;
        f.index = {i % block_size.x, i / block_size.x, 0};
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.data();
        f.context.uc_stack.ss_size = f.stack.size();
        f.context.uc_link = NULL;
        makecontext(&f.context, fiber_main, 0);
        state.warps[i / WARP].live++;
    }
    for (unsigned left = n, idle = 0; left; idle++) {
        left = 0;
        for (state.running = 0; state.running < n; state.running++) {
            fiber &f = state.fibers[state.running];
            if (f.done) continue;
            thread_index = f.index;
            swapcontext(&state.scheduler, &f.context);
            left += !f.done;
        }
        if (idle > 100000) {
            fprintf(stderr, "emulated CUDA: a block does not end: do all its threads meet?\n");
            abort();
        }
    }
}

struct work {
    dim3 grid, block;
    bool barriers;
    std::function<void()> thread;
};
} // namespace

void barrier(void)
{
    meet(state.all);
}

int lane(void)
{
    return (int)(state.running % WARP);
}

uint64_t exchange(uint64_t word, int from)
{
    unsigned warp = state.running / WARP;
    state.words[state.running] = word;
    meet(state.warps[warp]);
    uint64_t other = state.words[warp * WARP + (unsigned)from];
    meet(state.warps[warp]);
    return other;
}

int64_t clock_ns(void)
{
    return ts_clock_ns() - 5000000000; /* a clock of its own */
}

static void run_block(const work &w)
{
    unsigned n = w.block.x * w.block.y;
    state.thread = &w.thread;
    if (w.barriers) {
        run_fibers(n);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        thread_index = {i % w.block.x, i / w.block.x, 0};
        w.thread();
    }
}

static void CUDART_CB run_work(void *context)
{
    const work &w = *(const work *)context;
    const char *slow = getenv("TWINSTREAM_EMULATED_SLOW_US"); /* so much longer a kernel takes */
    if (slow) ts_clock_sleep_ns(1000 * atoll(slow));
    grid_size = w.grid;
    block_size = w.block;
    for (unsigned y = 0; y < w.grid.y; y++)
        for (unsigned x = 0; x < w.grid.x; x++) {
            block_index = {x, y, 0};
            run_block(w);
        }
}

void enqueue(cudaStream_t stream, dim3 grid, dim3 block, bool barriers,
             std::function<void()> thread)
{
    /* kept for ever: a graph may run it again */
    work *w = new work{grid, block, barriers, std::move(thread)};
    cudaLaunchHostFunc(stream, run_work, w);
}
} // namespace emulated
