/* What an event of a measurement has to be, and what is counted of those that are. Part of client.c. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef uint64_t ns;

static struct { /* what is asked for */
    int port;
    const char *request;                             /* all bytes of it; every {id} becomes the connection's number */
    const char *kind;                                /* "numbered": the events of /bench; "texts": an answer of numbered texts */
    long total, at_once, opening;                    /* connections in all, open at a time, opening at a time */
    long events, pad;                                /* events a connection; bytes of padding */
    double spread, stall, limit;                     /* seconds: to open all in, a gap that counts, for everything */
    const char *publish, *prefix, *suffix;           /* where events are posted, and what stands around them in a body */
    long leave;                                      /* so many connections leave, one every 10 ms, once all are ready */
    bool led;                                        /* say when all are ready, do what stdin says (`told`), end when it ends */
} ask = {.kind = "numbered", .total = 1, .limit = 200};

struct connection {
    int fd, number;
    bool sent, chunked, in_body, in_chunk, ready, stalled, ended;
    long events, chunk; /* received; what is left of the chunk that is read, counting the line end after it */
    ns begun, last;
    char *tail; /* what was read and isn't a whole event yet */
    size_t tail_length, tail_room;
};

struct samples { /* durations in ns */
    ns *values;
    size_t count, room;
};

static struct samples firsts, latencies;
static long received, stalls, pad_length;
static char *pad;
static ns now;

static ns clock_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (ns)time.tv_sec * 1000000000 + (ns)time.tv_nsec;
}

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static void add(struct samples *samples, ns value) {
    if (samples->count == samples->room) {
        samples->room = samples->room ? samples->room * 2 : 1 << 16;
        samples->values = realloc(samples->values, samples->room * sizeof(ns));
    }
    samples->values[samples->count++] = value;
}

static int compare(const void *a, const void *b) {
    return (*(const ns *)a > *(const ns *)b) - (*(const ns *)a < *(const ns *)b);
}

static void print_quantiles(const char *name, struct samples *samples) {
    size_t count = samples->count;
    if (!count) return;
    qsort(samples->values, count, sizeof(ns), compare);
    printf("\"%s\": {\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}, ", name, samples->values[count / 2] / 1e3,
           samples->values[(count - 1) * 99 / 100] / 1e3, samples->values[count - 1] / 1e3);
}

/* -- what an event has to be */

static bool skip(const char **at, const char *end, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(end - *at) < length || memcmp(*at, word, length)) return false;
    *at += length;
    return true;
}

static bool number(const char **at, const char *end, ns *value) {
    const char *from = *at;
    for (*value = 0; *at < end && **at >= '0' && **at <= '9'; ++*at) *value = *value * 10 + (ns)(**at - '0');
    return *at > from;
}

static void wrong(struct connection *c, const char *why, const char *data, const char *end) {
    fail("connection %d, after %ld events: %s: %.*s", c->number, c->events, why, (int)(end - data > 200 ? 200 : end - data), data);
}

static void arrived(struct connection *c, ns made) {
    if (!c->events) add(&firsts, now - c->begun);
    if (made) add(&latencies, now - made);
    if (c->events && ask.stall && now - c->last > (ns)(ask.stall * 1e9) && !c->stalled) {
        c->stalled = true;
        stalls++;
    }
    c->last = now;
    c->events++;
    received++;
}

/* {"n":0,"t":13311761912158,"pad":"xxx"}, or [DONE] after the last */
static void numbered(struct connection *c, const char *data, const char *end) {
    const char *at = data;
    ns n, t;
    if (skip(&at, end, "[DONE]")) {
        if (at != end || c->events != ask.events) wrong(c, "ended too early", data, end);
        return;
    }
    if (!skip(&at, end, "{\"n\":") || !number(&at, end, &n) || !skip(&at, end, ",\"t\":") || !number(&at, end, &t) ||
        !skip(&at, end, ",\"pad\":\""))
        wrong(c, "not an event of the load", data, end);
    if (n != (ns)c->events) wrong(c, "not the next number", data, end);
    if (end - at != pad_length + 2 || memcmp(at, pad, (size_t)pad_length) || memcmp(at + pad_length, "\"}", 2))
        wrong(c, "not the padding that was asked for", data, end);
    if (ask.events && c->events >= ask.events) wrong(c, "one event too many", data, end);
    arrived(c, t);
}

/* "content":"0:13311761912158;", whatever is around it; more of the text may have come together */
static void texts(struct connection *c, const char *data, const char *end) {
    static const char *const keys[] = {"\"content\":\"", "\"content\": \"", "\"delta\":\"", "\"delta\": \""};
    const char *at = NULL;
    ns n, t;
    for (size_t key = 0; key < 4 && !at; key++)
        if ((at = memmem(data, (size_t)(end - data), keys[key], strlen(keys[key])))) at += strlen(keys[key]);
    if (!at) return;
    while (at < end && *at != '"') {
        if (!number(&at, end, &n) || !skip(&at, end, ":") || !number(&at, end, &t) || !skip(&at, end, ";"))
            wrong(c, "not a text of the load", data, end);
        if (n != (ns)c->events) wrong(c, "not the next text", data, end);
        arrived(c, t);
    }
}

/* One event, without the empty line after it. */
static void event(struct connection *c, const char *from, const char *end) {
    const char *data = NULL, *data_end = NULL, *type = NULL;
    for (const char *line = from, *next; line < end; line = next + 1) {
        next = memchr(line, '\n', (size_t)(end - line));
        if (!next) next = end;
        if (skip(&line, next, "data:")) {
            if (data) wrong(c, "two lines of data", from, end);
            data = line + (line < next && *line == ' ');
            data_end = next;
        } else if (skip(&line, next, "event: ")) {
            type = line;
        }
    }
    if (!data) return; /* a comment, or what only sets an id or a time */
    if (!strcmp(ask.kind, "texts")) {
        texts(c, data, data_end);
    } else if (!type) {
        numbered(c, data, data_end);
    } else if (!skip(&type, end, "connected\n")) {
        wrong(c, "an event of a type that isn't asked for", from, end);
    }
}
