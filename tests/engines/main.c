/* A program whose tasks lie in a shared library. */
int ENTRY(int argc, char **argv);

int main(int argc, char **argv) { return ENTRY(argc, argv); }
