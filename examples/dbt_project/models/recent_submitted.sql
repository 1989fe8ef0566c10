-- Sends only the prompts that no earlier run has sent: one row per job, with the custom_ids that it took.
{{ config(materialized='incremental') }}

{% set unsent %}
  SELECT custom_id, prompt FROM {{ ref('recent_prompts') }}
  {% if is_incremental() %}
  WHERE custom_id NOT IN (SELECT unnest(custom_ids) FROM {{ this }})
  {% endif %}
{% endset %}

{% if is_incremental() and not has_rows(unsent) %}
SELECT * FROM {{ this }} WHERE false
{% else %}
SELECT *, (SELECT list(custom_id ORDER BY custom_id) FROM ({{ unsent }})) AS custom_ids
FROM mistral_batch_submit($source${{ unsent }}$source$, system := 'Summarise in one sentence.')
{% endif %}
