set(environment "PB_PIN=cores;PB_SPIN_US=0;PB_STACK_SIZE=32M")
