-- Numbers of events are given out once. The events themselves are not synced one by one, so a power cut
-- may take some that were told already: numbers up to `reserved` may have been given out in the boot
-- `boot_id`, and the next boot begins behind them.

CREATE TABLE event_numbers (
    one      INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
    boot_id  TEXT    NOT NULL,
    reserved INTEGER NOT NULL
) STRICT;
