"""The embedded platform of `headway up`: services as supervised processes of one home folder."""
