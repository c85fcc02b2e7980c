/* trace_file.h: reads a timeline's file. Each event has a line of its own; the whole is JSON. */
#ifndef TRACE_FILE_H
#define TRACE_FILE_H

#include "check.h"

#include <ctype.h>
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder for the files of this process, which remove_folder takes away again. */
static char folder[] = "/tmp/pb-trace-XXXXXX";
static inline void make_folder(void) { CHECK(mkdtemp(folder) != NULL); }

/* The path of a file there; valid until the eighth next call. */
static inline const char *in_folder(const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof *paths, "%s/%s", folder, name);
    return path;
}

static inline int count_files(void) {
    DIR *files = opendir(folder);
    CHECK(files != NULL);
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(files)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(files);
    return count;
}

static inline void remove_folder(void) {
    DIR *files = opendir(folder);
    CHECK(files != NULL);
    for (const struct dirent *entry; (entry = readdir(files)) != NULL;)
        if (entry->d_name[0] != '.')
            CHECK_INT(0, unlink(in_folder(entry->d_name)));
    closedir(files);
    CHECK_INT(0, rmdir(folder));
}

/* The end of the JSON value at `at`; NULL where there is none. */
static const char *json_value(const char *at);

static inline const char *json_blanks(const char *at) {
    return at == NULL ? NULL : at + strspn(at, " \t\r\n");
}

static inline const char *json_string(const char *at) {
    if (*at++ != '"')
        return NULL;
    for (; *at != '"'; at++) {
        if ((unsigned char)*at < 0x20)
            return NULL;
        at += *at == '\\';
    }
    return at + 1;
}

static const char *json_members(const char *at, char close) {
    at = json_blanks(at + 1);
    if (*at == close)
        return at + 1;
    for (;; at++) {
        at = json_blanks(at);
        if (close == '}') {
            at = json_blanks(json_string(at));
            if (at == NULL || *at++ != ':')
                return NULL;
        }
        at = json_blanks(json_value(json_blanks(at)));
        if (at == NULL || *at != ',')
            return at != NULL && *at == close ? at + 1 : NULL;
    }
}

static const char *json_value(const char *at) {
    if (*at == '{')
        return json_members(at, '}');
    if (*at == '[')
        return json_members(at, ']');
    if (*at == '"')
        return json_string(at);
    char *end;
    strtod(at, &end);
    return end != at && (isdigit((unsigned char)*at) || *at == '-') ? end : NULL;
}

/* An event; numbers that it does not have are -1. */
struct event {
    char category[16]; /* "" for names of threads and processes */
    long long pid, tid, map, begin, count, seat, items, workers, level;
    long long from, to; /* nanoseconds */
    const char *line;
};

struct trace {
    char *text; /* its lines, each with a nul at its end */
    struct event *events;
    size_t n_events;
};

/* The number behind "key": in the line. */
static inline double number_of(const char *line, const char *key) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *found = strstr(line, quoted);
    return found != NULL ? strtod(found + strlen(quoted), NULL) : -1;
}

static inline struct event read_event(const char *line) {
    struct event event;
    memset(&event, 0, sizeof event);
    event.line = line;
    const char *category = strstr(line, "\"cat\":\"");
    if (category != NULL)
        sscanf(category + 7, "%15[a-z]", event.category);
#define NUMBER(key) event.key = (long long)number_of(line, #key)
    NUMBER(pid), NUMBER(tid), NUMBER(map), NUMBER(begin), NUMBER(count), NUMBER(seat);
    NUMBER(items), NUMBER(workers), NUMBER(level);
#undef NUMBER
    const double from = number_of(line, "ts"), duration = number_of(line, "dur");
    event.from = (long long)(from * 1000 + 0.5);
    event.to = event.from + (duration < 0 ? 0 : (long long)(duration * 1000 + 0.5));
    return event;
}

/* Reads a file that must be there, and JSON as a whole. */
static inline struct trace read_trace(const char *path) {
    struct stat status;
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK_INT(0, fstat(fileno(file), &status));
    struct trace trace = {(char *)calloc((size_t)status.st_size + 1, 1), NULL, 0};
    CHECK_INT(status.st_size, fread(trace.text, 1, (size_t)status.st_size, file));
    fclose(file);
    const char *end = json_value(trace.text);
    CHECK(end != NULL && *json_blanks(end) == '\0');
    size_t lines = 0;
    for (const char *at = trace.text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    trace.events = (struct event *)calloc(lines + 1, sizeof *trace.events);
    for (char *line = trace.text, *next; (next = strchr(line, '\n')) != NULL; line = next + 1) {
        *next = '\0';
        if (strncmp(line, "{\"ph\"", 5) == 0)
            trace.events[trace.n_events++] = read_event(line);
    }
    return trace;
}

static inline void free_trace(struct trace *trace) {
    free(trace->text);
    free(trace->events);
}

static inline size_t count_events(const struct trace *trace, const char *category) {
    size_t count = 0;
    for (size_t i = 0; i < trace->n_events; i++)
        count += strcmp(trace->events[i].category, category) == 0;
    return count;
}

/* Whether a line has this text. */
static inline int has_text(const struct trace *trace, const char *text) {
    for (size_t i = 0; i < trace->n_events; i++)
        if (strstr(trace->events[i].line, text) != NULL)
            return 1;
    return 0;
}

/* The maps in a file. */
static inline size_t maps_in(const char *path) {
    struct trace trace = read_trace(path);
    const size_t maps = count_events(&trace, "map");
    free_trace(&trace);
    return maps;
}

#endif
