-- The results of submissions and jobs, kept as Parquet.
SELECT $columns FROM $rows
