file(GLOB more CONFIGURE_DEPENDS conformance/*.c)
