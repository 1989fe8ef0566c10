-- What came back and was never sent: how many custom_ids, and some of them, first those that are nearly one that is
-- missing. NULL stands for lines without a custom_id.
WITH
  strangers AS (
    SELECT DISTINCT custom_id FROM read_parquet($results) ANTI JOIN submitted USING (custom_id)
  ),
  named AS (
    SELECT strangers.custom_id, any_value(submitted.custom_id) AS meant
    FROM strangers LEFT JOIN submitted
      ON lower(trim(nfc_normalize(strangers.custom_id))) = lower(trim(nfc_normalize(submitted.custom_id)))
    GROUP BY strangers.custom_id
  )
SELECT count(*), list({'custom_id': custom_id, 'meant': meant} ORDER BY meant IS NULL, custom_id)[:$most] FROM named
