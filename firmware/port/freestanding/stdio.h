/* Nothing here prints: a library includes this for messages that a build leaves out. */
