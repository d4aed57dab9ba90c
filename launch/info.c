/* info.c - `twinstream info`: every device, library and backend, and why one is absent. */
#include "launch/info.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/model.h"
#include "runtime/train/version.h"

static void show_devices(void)
{
    printf("Devices\n");
    for (int i = 0; ts_devices[i]; i++) {
        ts_device *device;
        char text[256];
        if (ts_devices[i]->open(0, &device)) {
            printf("  %-10s absent: %s\n", ts_devices[i]->name, ts_trail_message());
            ts_trail_clear();
            continue;
        }
        ts_device_describe(device, text, sizeof text);
        printf("  %-10s %s%s\n", device->ops->name, text,
               ts_device_can_capture(device) ? "; captures steps" : "");
        ts_device_close(device);
    }
}

static void show_versions(void)
{
    json_t *versions = ts_version_json(true), *value;
    const char *name;
    printf("Versions\n");
    json_object_foreach(versions, name, value)
        printf("  %-10s %s\n", name, json_string_value(value));
    json_decref(versions);
}

static void show_communicators(const ts_world *world, const ts_device *device)
{
    printf("Communicators, for %d rank%s on device %s\n", world->size, world->size == 1 ? "" : "s",
           device->ops->name);
    for (int i = 0; ts_communicators[i]; i++) {
        const char *why = NULL;
        bool serves = ts_communicators[i]->serves(world, device, &why);
        printf("  %-10s %s%s\n", ts_communicators[i]->name,
               serves ? "serves" : "does not serve: ", serves ? "" : why);
    }
}

/* One typical description of each kind of op. */
static void show_ops(const ts_device *device, ts_type type)
{
    const ts_op_desc descs[] = {
        {.kind = TS_OP_CONV,
         .in = {64, 64, 32, 32},
         .out = {64, 64, 32, 32},
         .kernel = 3,
         .stride = 1,
         .padding = 1,
         .needs_dx = true},
        {.kind = TS_OP_BATCH_NORM,
         .in = {64, 64, 32, 32},
         .out = {64, 64, 32, 32},
         .add = true,
         .relu = true,
         .epsilon = 1e-5f,
         .momentum = 0.1f,
         .needs_dx = true},
        {.kind = TS_OP_MAX_POOL,
         .in = {64, 64, 32, 32},
         .out = {64, 64, 16, 16},
         .kernel = 2,
         .stride = 2,
         .needs_dx = true},
        {.kind = TS_OP_AVERAGE_POOL,
         .in = {64, 512, 4, 4},
         .out = {64, 512, 1, 1},
         .needs_dx = true},
        {.kind = TS_OP_LINEAR,
         .in = {64, 512, 1, 1},
         .out = {64, 10, 1, 1},
         .out_type = TS_F32,
         .needs_dx = true},
        {.kind = TS_OP_DROPOUT,
         .in = {64, 512, 1, 1},
         .out = {64, 512, 1, 1},
         .probability = 0.5f,
         .needs_dx = true},
        {.kind = TS_OP_CROSS_ENTROPY, .in = {64, 10, 1, 1}, .out = {64, 1, 1, 1}, .needs_dx = true},
    };
    ts_layout layout = ts_op_best_layout(device, type, NULL);
    printf("Ops on device %s, %s: op, backends that serve it (the first is taken), why others do "
           "not\n",
           device->ops->name, ts_type_name(type));
    for (size_t i = 0; i < sizeof descs / sizeof *descs; i++) {
        ts_op_desc desc = descs[i];
        desc.training = true;
        desc.type = desc.kind == TS_OP_CROSS_ENTROPY ? TS_F32 : type;
        desc.in_layout = desc.layout = desc.in.h > 1 ? layout : TS_NCHW;
        if (desc.kind == TS_OP_AVERAGE_POOL) desc.layout = TS_NCHW;
        printf("  %-14s", ts_op_kind_name(desc.kind));
        for (int b = 0; ts_op_backends[b]; b++) {
            const char *why = NULL;
            if (ts_op_backends[b]->serves(device, &desc, &why))
                printf(" %s", ts_op_backends[b]->name);
            else if (why)
                printf(" (%s: %s)", ts_op_backends[b]->name, why);
        }
        printf("\n");
    }
}

static void show_lists(void)
{
    printf("Models\n");
    for (int i = 0; ts_networks()[i]; i++)
        printf("  %-10s %s\n", ts_networks()[i]->name, ts_networks()[i]->help);
    printf("Algorithms\n");
    for (int i = 0; ts_algorithms[i]; i++)
        printf("  %-10s %s, %s: %s\n", ts_algorithms[i]->name, ts_algorithms[i]->title,
               ts_algorithms[i]->paper, ts_algorithms[i]->rule);
}

ts_status ts_info_run(ts_session *session)
{
    ts_world *world = ts_session_world(session);
    const ts_config *config = ts_session_config(session);
    if (world->rank) return TS_OK;
    ts_device *device;
    TS_TRY(ts_device_open(config->device, world->local_rank, &device));
    printf("twinstream %s (%s)\n", ts_version(), ts_version_commit());
    show_versions();
    show_devices();
    show_communicators(world, device);
    show_ops(device, TS_F32);
    show_ops(device, TS_BF16);
    show_lists();
    ts_device_close(device);
    return TS_OK;
}
