"""Files between this machine and a work_dir, as flows that read and write here (`Do`)."""
