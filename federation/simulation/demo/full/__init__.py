"""`fairway demo --full`: three regions, each two replicas on a PostgreSQL of its own, peered over ways that take time.

| Module | What is in it |
| --- | --- |
| `story` | all of it, from the first process to the exit code |
| `scenes` | what is shown; each scene raises NotShown where it was not so |
| `places` | a region as scenes see it: its replicas, its callers, and what it is asked |
| `plan` | which engines, settings and ways there are; pure |
| `machines` | replicas, databases and engines: started, broken, mended |
| `wires` | the ways between regions, with their round trips; they can be cut |

The rest is the smaller demonstration's, one folder up.
"""
