"""The demonstration: three regions, nine engines, real processes and sockets; it breaks things and checks each claim.

| Module | What is in it |
| --- | --- |
| `story` | all of it, from the first process to the exit code |
| `scenes` | what is shown; each scene raises NotShown where it was not so |
| `checks` | how scenes check, and wait |
| `world` | what scenes work with |
| `gateway` | asks for decisions, sends requests, streams answers, tries alternatives, reports |
| `load` | requests as they come, and who got them |
| `fleet` | what there is, and the command line of every process |
| `machines` | the control plane, engines and agents: started, broken, mended |
| `processes` | processes, none of which is left behind |
| `screen` | what is printed |
"""
