/* A server that is never the bottleneck, and the upstream of the chat measurements.

     server PORT

   GET …/bench?events=E&size=S                    the events of /bench out of one buffer: what the load client can take at most
   a request with "load C I " in it, a space last    an answer of a model in C chunks, one every I µs; with 0 as fast as they are taken

   A chunk's text is `<number>:<CLOCK_MONOTONIC in ns at which it was written>;`, and it travels in an HTTP chunk of its own. A
   client that goes before its answer has ended is told of on stdout: `closed <the number after C and I> <CLOCK_MONOTONIC>`.
   One thread, epoll. Limit: requests come whole within 64 KiB, with a Content-Length if they have a body.
*/
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64, REQUEST = 1 << 16, BATCH = 50, CHUNK = 400 };

#define NOT_FOUND "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

struct connection {
    int fd, id;                 /* id: the client's number of this answer */
    bool running;               /* an answer is being written */
    long chunks, next, every;   /* of an answer: how many, the next one, ns between two */
    uint64_t due;
    const char *body;           /* what is to be written next; canned, or `own` */
    size_t left;
    char *own;                  /* room for BATCH chunks */
    char *request;
    size_t length;
    struct connection *after;   /* in the list of paced answers */
    bool listed;
};

static struct connection *paced;
static int poll_fd;
static char *canned;
static size_t canned_length;
static char canned_for[64];

static uint64_t clock_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* All bytes of an answer to /bench, made once for each pair of parameters. */
static void make_canned(long events, long size) {
    char name[64];
    snprintf(name, sizeof name, "%ld %ld", events, size);
    if (!strcmp(name, canned_for)) return;
    strcpy(canned_for, name);
    int pad = size > 50 ? (int)size - 50 : 0;
    char *event = malloc((size_t)pad + 200), *pads = memset(calloc(1, (size_t)pad + 1), 'x', (size_t)pad);
    free(canned);
    canned = malloc((size_t)events * ((size_t)pad + 200) + 400);
    char *to = canned + sprintf(canned, HEAD);
    for (long n = 0; n < events; n++) {
        int length = sprintf(event, "id: %ld\ndata: {\"n\":%ld,\"t\":%lu,\"pad\":\"%s\"}\n\n", n + 1, n, (unsigned long)clock_now(), pads);
        to += sprintf(to, "%x\r\n%s\r\n", (unsigned)length, event);
    }
    to += sprintf(to, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    canned_length = (size_t)(to - canned);
    free(event);
    free(pads);
}

static char *write_chunk(char *to, const char *delta, const char *reason) {
    char data[CHUNK];
    int length = sprintf(data,
                         "data: {\"id\":\"chatcmpl-C2mLmIIOqTx5kQhLqWZyM\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                         "\"model\":\"test\",\"choices\":[{\"index\":0,\"delta\":{%s},\"logprobs\":null,\"finish_reason\":%s}]}\n\n",
                         delta, reason);
    return to + sprintf(to, "%x\r\n%s\r\n", (unsigned)length, data);
}

/* Makes the next bytes of an answer: the chunks that are due, or a batch. */
static void make_chunks(struct connection *c) {
    char delta[100], *to = c->own;
    long until = c->every ? c->next + 1 : c->next + BATCH;
    if (until > c->chunks) until = c->chunks;
    if (c->next == 0) to += sprintf(to, HEAD);
    for (; c->next < until; c->next++) {
        sprintf(delta, "\"content\":\"%ld:%lu;\"", c->next, (unsigned long)clock_now());
        to = write_chunk(to, delta, "null");
    }
    if (c->next == c->chunks) {
        to = write_chunk(to, "", "\"stop\"");
        to += sprintf(to, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    }
    c->body = c->own;
    c->left = (size_t)(to - c->own);
    c->due += (uint64_t)c->every;
}

static void wait_for(struct connection *c, uint32_t events) {
    struct epoll_event interest = {.events = events | EPOLLIN | EPOLLRDHUP, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &interest);
}

static void drop(struct connection *c) {
    if (c->running && c->chunks) {
        printf("closed %d %lu\n", c->id, (unsigned long)clock_now());
        fflush(stdout);
    }
    close(c->fd);
    c->fd = -1;
    for (struct connection **at = &paced; *at && c->listed; at = &(*at)->after)
        if (*at == c) {
            *at = c->after;
            break;
        }
    free(c->own);
    free(c->request);
    free(c);
}

/* Writes until the socket is full, nothing is due, or the answer has ended. False where the client is gone, and `c` with it. */
static bool write_on(struct connection *c) {
    while (c->running) {
        if (!c->left && c->chunks && c->next < c->chunks && (!c->every || clock_now() >= c->due)) make_chunks(c);
        if (!c->left) {
            if (!c->chunks || c->next == c->chunks) c->running = false;
            break;
        }
        ssize_t wrote = write(c->fd, c->body, c->left);
        if (wrote < 0 && errno == EAGAIN) {
            wait_for(c, EPOLLOUT);
            return true;
        }
        if (wrote < 0) {
            drop(c);
            return false;
        }
        c->body += wrote;
        c->left -= (size_t)wrote;
    }
    return true;
}

static void answer(struct connection *c, const char *body) {
    const char *load = strstr(body, "load "), *query = strstr(c->request, "/bench?events=");
    long size = 190, events;
    c->chunks = 0;
    if (query && sscanf(query, "/bench?events=%ld&size=%ld", &events, &size) >= 1) {
        make_canned(events, size);
        c->body = canned;
        c->left = canned_length;
    } else if (load && sscanf(load, "load %ld %ld %d ", &c->chunks, &c->every, &c->id) == 3) {
        c->every *= 1000;
        c->next = 0;
        c->due = clock_now();
        if (!c->own) c->own = malloc(BATCH * CHUNK + 1000);
        if (c->every && !c->listed) c->after = paced, paced = c, c->listed = true;
    } else {
        c->body = NOT_FOUND;
        c->left = strlen(NOT_FOUND);
    }
    c->running = true;
}

/* Takes the next request, if it is whole. False where the client is gone. */
static bool read_on(struct connection *c) {
    ssize_t got = read(c->fd, c->request + c->length, REQUEST - 1 - c->length);
    if (got < 0 && errno == EAGAIN) return true;
    if (got <= 0) {
        drop(c);
        return false;
    }
    c->request[c->length += (size_t)got] = 0;
    char *end = strstr(c->request, "\r\n\r\n"), *counted = strcasestr(c->request, "content-length: ");
    if (!end || (counted && counted < end && c->request + c->length - end - 4 < atol(counted + 16))) return true;
    if (c->running) return true;
    c->length = 0;
    answer(c, end);
    return write_on(c);
}

static void take(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        struct epoll_event interest = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        c->fd = fd;
        c->request = malloc(REQUEST);
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &interest);
    }
}

int main(int count, char **words) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[count - 1]))};
    struct epoll_event events[MOST], interest = {.events = EPOLLIN};
    struct rlimit files;
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("listen");
        return 1;
    }
    poll_fd = epoll_create1(0);
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &interest);
    while (true) {
        int ready = epoll_wait(poll_fd, events, MOST, paced ? 1 : 1000);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) take(listener);
            else if (events[i].events & (EPOLLHUP | EPOLLERR)) drop(c);
            else if (!(events[i].events & EPOLLIN) || read_on(c)) {
                if (events[i].events & EPOLLOUT && write_on(c) && !c->left) wait_for(c, 0);
            }
        }
        uint64_t now = clock_now();
        for (struct connection *c = paced, *after; c; c = after) {
            after = c->after;
            if (c->running && !c->left && now >= c->due) write_on(c);
        }
    }
}
