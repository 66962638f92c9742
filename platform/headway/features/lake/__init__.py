"""The lake: tables, their only writer, upkeep, and governed reads."""
