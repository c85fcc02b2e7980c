/* Rank 0 of a job whose worker is killed in the middle of a task, or never answers, or which itself ends
 * without pb_shutdown, or without a map: the whole job has to end, by the launcher. deaths killed | no_answer
 * | no_shutdown | never_used */
#include "check.h"
#include "tasks.h"

int main(int argc, char **argv) {
    CHECK_INT(2, argc);
    if (strcmp(argv[1], "never_used") == 0)
        return 0;
    pb_scope scope = 0;
    if (strcmp(argv[1], "no_answer") == 0) {
        CHECK_STATUS(pb_push_backend("mpi", 0, 0, "start_timeout=2", &scope), PB_ERR_BACKEND_UNAVAILABLE);
        CHECK_TEXT("after 2 s not all of the job's 2 ranks are there");
        CHECK_OK(pb_shutdown()); /* does not wait for the others either */
        fputs("no answer, as it should be\n", stderr);
        return 4;
    }
    CHECK_OK(pb_push_backend("mpi", 0, 0, NULL, &scope));
    if (strcmp(argv[1], "no_shutdown") == 0)
        return 0;
    int32_t outputs[2];
    pb_map_options options = {.struct_size = sizeof options};
    options.batch_size = 1;
    const pb_status status = pb_parallel_map(die, NULL, 2, NULL, 0, outputs, sizeof *outputs, &options);
    fprintf(stderr, "the map returned %s: %s\n", pb_status_name(status), pb_last_error());
    return 3;
}
