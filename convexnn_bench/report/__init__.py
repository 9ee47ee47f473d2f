"""Tables and figures. They read records only and run nothing."""
