/* session.c - the public calls of twinstream.h: options and a world around train and evaluate. */
#include "runtime/train/session.h"

#include <stdlib.h>

#include "runtime/base/log.h"

struct ts_session {
    ts_config config;
    ts_option_set *options;
    ts_world *world;
};

ts_status ts_session_open(ts_session **session_p)
{
    ts_session *s = calloc(1, sizeof *s);
    *session_p = s;
    TS_NEED(s, TS_ENOMEM, "no memory for a session");
    TS_TRY(ts_config_open(&s->config, &s->options));
    TS_TRY(ts_world_open("auto", &s->world));
    ts_log_set_rank(s->world->rank, s->world->size, s->world->host);
    return TS_OK;
}

int ts_session_close(ts_session *s, ts_status status)
{
    int code = ts_status_exit_code(status);
    ts_log_failure(status);
    if (!s) return code;
    /* a rank that failed alone takes the others with it: they may be waiting for it */
    if (s->world && s->world->size > 1 && status != TS_OK && !s->world->agreed)
        s->world->ops->abort(s->world, code);
    ts_world_close(s->world);
    ts_option_set_close(s->options);
    ts_networks_forget();
    free(s);
    return code;
}

ts_status ts_session_add_network(ts_session *s, const ts_network *network)
{
    (void)s;
    return ts_network_add(network);
}

ts_status ts_session_set(ts_session *s, const char *key, const char *value)
{
    return ts_option_set_value(s->options, key, value, "ts_session_set");
}

ts_status ts_session_parse(ts_session *s, int argc, char **argv)
{
    TS_TRY(ts_world_agree(s->world, ts_option_set_parse(s->options, argc, argv)));
    if (s->config.verbose) ts_log_set_level(TS_LOG_DEBUG);
    return TS_OK;
}

int ts_session_rank(const ts_session *s)
{
    return s->world->rank;
}

int ts_session_size(const ts_session *s)
{
    return s->world->size;
}

ts_status ts_session_train(ts_session *s, ts_result *result)
{
    return ts_train(s->world, &s->config, s->options, result);
}

ts_status ts_session_evaluate(ts_session *s, ts_result *result)
{
    return ts_evaluate(s->world, &s->config, result);
}

const ts_config *ts_session_config(const ts_session *s)
{
    return &s->config;
}

ts_world *ts_session_world(ts_session *s)
{
    return s->world;
}
