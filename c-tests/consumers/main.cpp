// As main.c, from C++17.
#include <iostream>
#include <parallel_backend.h>
#include <string>

int main() {
    std::cout << "C++: header " << PB_VERSION_NUMBER << ", library " << pb_version() << '\n';
    std::string expected = std::to_string(PB_VERSION_MAJOR) + '.' + std::to_string(PB_VERSION_MINOR) + '.' +
                           std::to_string(PB_VERSION_PATCH);
    return expected == pb_version() ? 0 : 1;
}
