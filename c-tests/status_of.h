// status_of.h: the status of the pb::error that `call` throws; PB_OK where it throws none.
#ifndef STATUS_OF_H
#define STATUS_OF_H

#include <parallel_backend.hpp>

template <class Call> pb_status status_of(Call call) {
    try {
        call();
    } catch (const pb::error &error) {
        return error.status();
    }
    return PB_OK;
}

#endif
